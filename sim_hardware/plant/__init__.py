"""Makes a power plant as its dispatch centre sees it: AGC, AVC and primary frequency, as good as asked for."""

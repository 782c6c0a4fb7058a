"""Device consistency: what a plant's control device holds, pulled, judged against what is certified, and watched."""

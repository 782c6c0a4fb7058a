"""P-256 signatures behind one interface: a pure signer for boards, OpenSSL's for CPython."""

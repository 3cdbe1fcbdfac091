"""Who calls, what they may do and how much of it: callers, tokens, access, quotas, certificates, signatures."""

//! When to answer with ICMP, and how often.

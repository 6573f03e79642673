//! Internet checksums, whole and incremental (RFC 1071, RFC 1624).

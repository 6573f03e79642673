//! What follows from a packet that belongs to its connection.

/// What the table of connections has to do about a packet that belongs to its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The connection's time begins anew, with what its tracker's `timeout` says now.
    pub refresh: bool,
    /// The state is another one than before.
    pub changed: bool,
}

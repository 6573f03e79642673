//! Where we differ from Linux on purpose. Each line names the case, what we do, and the clause that says so. A line that
//! no case needs fails the test: an exception must not outlive its reason.

/// What comes out of ours where it is not what comes out of Linux.
pub enum Ours {
    /// Nothing at all.
    Nothing,
    /// As many frames as Linux sends, with other octets.
    Different,
    /// Something where Linux sends nothing, or another number of frames.
    Frames(usize),
}

/// Case, our behaviour, reason.
pub const EXCEPTIONS: &[(&str, Ours, &str)] = &[];

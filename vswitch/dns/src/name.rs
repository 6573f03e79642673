//! Domain names.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The most octets of a name (RFC 1035 section 3.1), the last one included, which is 0.
const MAX_NAME: usize = 255;
/// The most octets of a label.
const MAX_LABEL: usize = 63;

/// A name that cannot be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// A label of no or of more than 63 octets.
    #[error("a label of a name has 1 to 63 octets")]
    Label,
    /// More than 255 octets.
    #[error("a name has 255 octets at the most")]
    Length,
}

/// A name as it stands in a message, without compression and in lower case: each label behind its length, and a 0 at the
/// end. So names that differ in case alone are one (RFC 4343), and what a name is beneath is the end of the same octets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<[u8]>);

impl DomainName {
    /// What all names are beneath.
    pub fn root() -> Self {
        Self(Arc::from([0]))
    }

    /// A name of labels, the leftmost first.
    ///
    /// # Errors
    /// When a label or the whole is too short or too long.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        let mut octets = Vec::with_capacity(64);
        for label in labels {
            push(&mut octets, label)?;
        }
        Self::end(octets)
    }

    /// Reads a name as people write it, with or without the last dot. There are no escapes.
    ///
    /// # Errors
    /// When a label or the whole is too short or too long.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let labels = text.split('.').filter(|_| !text.is_empty());
        Self::from_labels(labels.map(str::as_bytes))
    }

    /// The name of these labels beneath this one.
    ///
    /// # Errors
    /// When a label or the whole is too short or too long.
    pub fn beneath(&self, labels: &[&str]) -> Result<Self, NameError> {
        let mut octets = Vec::with_capacity(self.0.len() + 32);
        for label in labels {
            push(&mut octets, label.as_bytes())?;
        }
        octets.extend_from_slice(&self.0[..self.0.len() - 1]);
        Self::end(octets)
    }

    fn end(mut octets: Vec<u8>) -> Result<Self, NameError> {
        octets.push(0);
        if octets.len() > MAX_NAME {
            return Err(NameError::Length);
        }
        Ok(Self(octets.into()))
    }

    /// The name whose octets are known to be one.
    pub(crate) fn of_wire(wire: &[u8]) -> Self {
        Self(wire.into())
    }

    /// The octets.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, the leftmost first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(&self.0)
    }

    /// Whether it is `other` or beneath it.
    pub fn is_within(&self, other: &Self) -> bool {
        ancestors(&self.0).any(|name| name == &*other.0)
    }
}

fn push(octets: &mut Vec<u8>, label: &[u8]) -> Result<(), NameError> {
    let length = u8::try_from(label.len()).map_err(|_| NameError::Label)?;
    if length == 0 || label.len() > MAX_LABEL {
        return Err(NameError::Label);
    }
    octets.push(length);
    octets.extend(label.iter().map(u8::to_ascii_lowercase));
    Ok(())
}

/// The labels of a name in its wire form.
pub(crate) fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    ancestors(wire).filter_map(first_label)
}

/// The leftmost label; none of the root.
pub(crate) fn first_label(wire: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*wire.first()?);
    wire.get(1..=length).filter(|label| !label.is_empty())
}

/// What a name is directly beneath; nothing above the root.
pub(crate) fn parent(wire: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*wire.first()?);
    wire.get(length + 1..).filter(|rest| length > 0 && !rest.is_empty())
}

/// The name itself, what it is beneath, and so on to the root.
pub(crate) fn ancestors(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |name| parent(name))
}

impl Borrow<[u8]> for DomainName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for DomainName {
    /// As in master files (RFC 1035 section 5.1), with the last dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(octet))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_printed_and_bounded() {
        let name = DomainName::parse("Web.Default.svc.cluster.LOCAL.").unwrap();
        assert_eq!(name.to_string(), "web.default.svc.cluster.local.");
        assert_eq!(name, DomainName::parse("web.default.svc.cluster.local").unwrap());
        assert_eq!(name.wire()[..4], *b"\x03web");
        assert_eq!(name.labels().count(), 5);
        assert_eq!(DomainName::parse(".").unwrap().to_string(), ".");
        assert_eq!(DomainName::parse("a..b"), Err(NameError::Label));
        assert_eq!(DomainName::parse(&"a".repeat(64)), Err(NameError::Label));
        assert_eq!(DomainName::parse(&format!("{}b", "aaaaaaa.".repeat(32))), Err(NameError::Length));
        let odd = DomainName::from_labels([&b"a.b"[..], b"\x01\xff"]).unwrap();
        assert_eq!(odd.to_string(), "a\\.b.\\001\\255.");
    }

    #[test]
    fn a_name_is_beneath_its_ends() {
        let of = |text: &str| DomainName::parse(text).unwrap();
        let name = of("a.b.c");
        assert!(name.is_within(&of("b.c")) && name.is_within(&name) && name.is_within(&of(".")));
        assert!(!name.is_within(&of("x.c")) && !of("b.c").is_within(&name));
        // Octets that look like the end of another name are not.
        assert!(!DomainName::from_labels([&b"x\x01b\x01c"[..]]).unwrap().is_within(&of("b.c")));
        assert_eq!(of("c").beneath(&["a", "b"]), Ok(name));
    }
}

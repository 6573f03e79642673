//! Addresses as C has them.

use core::ffi::c_char;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

use crate::caller::Outcome;
use crate::result::{Code, netstack_result};

/// An IPv4 or IPv6 address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct netstack_address {
    /// 4 or 6; 0 where there is no address.
    pub family: u8,
    /// The address in network order; of IPv4 the first four octets, the others are 0.
    pub octets: [u8; 16],
}

/// An address and an L4 port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct netstack_endpoint {
    /// The address.
    pub address: netstack_address,
    /// The port, in the machine's order.
    pub port: u16,
}

impl From<IpAddr> for netstack_address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&v4.octets());
                Self { family: 4, octets }
            }
            IpAddr::V6(v6) => Self { family: 6, octets: v6.octets() },
        }
    }
}

impl From<SocketAddr> for netstack_endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self { address: socket.ip().into(), port: socket.port() }
    }
}

impl netstack_address {
    /// As Rust has it.
    pub(crate) fn to_ip(self) -> Outcome<IpAddr> {
        match self.family {
            4 => {
                let [a, b, c, d, ..] = self.octets;
                Ok(Ipv4Addr::new(a, b, c, d).into())
            }
            6 => Ok(Ipv6Addr::from(self.octets).into()),
            _ => Err(Code::InvalidArgument),
        }
    }
}

impl netstack_endpoint {
    /// As Rust has it.
    pub(crate) fn to_socket(self) -> Outcome<SocketAddr> {
        Ok(SocketAddr::new(self.address.to_ip()?, self.port))
    }
}

/// Reads a value from text.
pub(crate) fn parse<T: FromStr>(text: &str) -> Outcome<T> {
    text.parse().map_err(|_| Code::InvalidArgument)
}

/// Reads an address such as "10.0.0.1" or "fd00::1".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_address_parse(
    text: *const c_char,
    address: *mut netstack_address,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(address)?;
        out.put(parse::<IpAddr>(caller.text(text)?)?.into());
        Ok(())
    })
}

/// Reads an address and a port such as "10.0.0.1:80" or "[fd00::1]:80".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_endpoint_parse(
    text: *const c_char,
    endpoint: *mut netstack_endpoint,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(endpoint)?;
        out.put(parse::<SocketAddr>(caller.text(text)?)?.into());
        Ok(())
    })
}

/// Writes an address as text, ending in NUL; 46 octets are enough. `length` may be NULL.
/// BUFFER_TOO_SMALL: `length` is written, `buffer` is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_address_format(
    address: *const netstack_address,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let text = caller.value(address)?.to_ip()?.to_string();
        caller.copy_text(&text, buffer, capacity, length)
    })
}

/// Writes an address and a port as text, ending in NUL; 54 octets are enough. `length` may be NULL.
/// BUFFER_TOO_SMALL: `length` is written, `buffer` is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_endpoint_format(
    endpoint: *const netstack_endpoint,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let text = caller.value(endpoint)?.to_socket()?.to_string();
        caller.copy_text(&text, buffer, capacity, length)
    })
}

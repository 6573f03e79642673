//! What a policy says, as plain data.

use alloc::vec::Vec;

use crate::addr::IpNet;

/// A set of stations that rules name, all those with certain labels for instance. Which stations are in it, they say
/// themselves: see [`Peer`](super::Peer).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u32);

/// A policy. Its number is its own for good: what is counted is counted by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyId(pub u32);

/// What a station calls one of its ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortName(pub u32);

/// What becomes of a connection that a rule matches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// It is let through.
    Accept,
    /// It is not.
    Deny,
    /// The tier has nothing to say about it: the next one decides.
    Pass,
}

/// A rule, for one direction of whoever it is put on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// The policy that it is part of.
    pub policy: PolicyId,
    /// Its place there, from 0.
    pub number: u32,
    /// What becomes of what it matches.
    pub action: Action,
    /// Who is at the other end.
    pub peers: Peers,
    /// What is asked for.
    pub ports: Ports,
}

/// Who is at the other end of a connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Peers {
    /// Anybody.
    Everyone,
    /// One of any of these; without any nobody.
    These {
        /// Stations.
        groups: Vec<GroupId>,
        /// Addresses, whoever has them.
        blocks: Vec<Block>,
    },
}

/// The addresses of a prefix that are in none of some others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Block {
    /// The prefix.
    pub net: IpNet,
    /// The others.
    pub except: Vec<IpNet>,
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ports {
    /// Anything of any protocol.
    All,
    /// One of these; without any nothing.
    These(Vec<PortMatch>),
}

/// Ports of one protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PortMatch {
    /// All of them.
    Protocol(u8),
    /// From the first to the last.
    Range {
        /// IP protocol number.
        protocol: u8,
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// Whichever the station that is asked calls so.
    Named {
        /// IP protocol number.
        protocol: u8,
        /// The name.
        name: PortName,
    },
}

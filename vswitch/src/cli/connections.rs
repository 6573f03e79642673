//! Which connections to list.

use clap::Args;

/// Which connections to list: those for which everything holds that is said.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for connections")]
pub(super) struct Connections {
    /// Only those of this protocol: tcp, udp, sctp, icmp, icmpv6, or a number
    #[arg(short, long)]
    protocol: Option<String>,
    /// Only those opened from this address or prefix, the opener's own (conntrack -s) or the one he is seen with (-q)
    #[arg(short, long, value_name = "ADDRESS|PREFIX")]
    source: Option<String>,
    /// Only those to this address or prefix, the one that was asked for (conntrack -d) or the one that answers (-r)
    #[arg(short, long, value_name = "ADDRESS|PREFIX")]
    destination: Option<String>,
    /// Only those opened from this port; either one, as with --source
    #[arg(long, value_name = "PORT")]
    sport: Option<u16>,
    /// Only those to this port; either one, as with --destination
    #[arg(long, value_name = "PORT")]
    dport: Option<u16>,
    /// Only those in this state of TCP or SCTP (ESTABLISHED, TIME_WAIT, ...), ASSURED, or UNREPLIED
    #[arg(long)]
    state: Option<String>,
}

impl Connections {
    /// What is said, by the names that the API has for it.
    pub(super) fn given(&self) -> Vec<(&'static str, String)> {
        let port = |port: Option<u16>| port.map(|port| port.to_string());
        let all = [
            ("protocol", self.protocol.clone()),
            ("source", self.source.clone()),
            ("destination", self.destination.clone()),
            ("sport", port(self.sport)),
            ("dport", port(self.dport)),
            ("state", self.state.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

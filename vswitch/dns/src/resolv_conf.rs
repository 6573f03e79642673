//! `/etc/resolv.conf`: whom the machine itself asks.

use std::net::IpAddr;

/// As many as resolvers look at (resolv.conf(5)).
const MOST: usize = 3;

/// The servers that a file names, in order. Lines that say something else, or nothing that can be read, are left out, as
/// resolvers do. An address of a link alone needs the link, which is not known here.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let mut servers: Vec<IpAddr> = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        let is_link = matches!(server, IpAddr::V6(address) if address.is_unicast_link_local());
        if !is_link && !server.is_unspecified() && !servers.contains(&server) && servers.len() < MOST {
            servers.push(server);
        }
    }
    servers
}

/// The domains that a file has names completed with, in order: those of its last line that says any.
pub fn searches(text: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let last = lines.rfind(|line| matches!(line.split_whitespace().next(), Some("search" | "domain")));
    let domains = last.unwrap_or_default().split_whitespace().skip(1);
    let domains = domains.map(|domain| domain.trim_end_matches('.')).filter(|domain| !domain.is_empty());
    domains.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_in_order_and_what_is_none_is_left_out() {
        let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 192.0.2.1\n  nameserver\t2001:db8::1 # two\n\
                    nameserver nonsense\nnameserver fe80::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\noptions ndots:2\n\
                    nameserver 127.0.0.53\nnameserver 192.0.2.4\n";
        let expected = ["192.0.2.1", "2001:db8::1", "127.0.0.53"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(nameservers(text), expected);
        assert!(nameservers("").is_empty());
    }

    #[test]
    fn the_last_line_of_domains_counts() {
        let text = "domain old.example\n# search no.example\nsearch corp.example. .  lan\noptions ndots:2\n";
        assert_eq!(searches(text), ["corp.example", "lan"]);
        assert_eq!(searches("search a.example\ndomain b.example\n"), ["b.example"]);
        assert!(searches("nameserver 192.0.2.1\n").is_empty());
    }
}

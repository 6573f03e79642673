//! The role `__check`: asks a port of a pod.
//!
//! `__check tcp HOST PORT`, `__check http HOST PORT PATH [NAME VALUE]...` or `__check grpc HOST PORT SERVICE`; status 0 if all is well, else 1 and a line
//! on standard error. Whoever starts it limits its time.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::process::ExitCode;

use super::spec::Check;

/// The longest status line that is read.
const MAX_STATUS_LINE: u64 = 4096;

/// The arguments of the role for a check that is not a command.
pub(super) fn arguments(check: &Check, address: Option<IpAddr>) -> Option<Vec<String>> {
    let host = |host: &Option<String>| {
        let own = || address.map_or_else(|| "localhost".to_owned(), |address| address.to_string());
        host.clone().unwrap_or_else(own)
    };
    match check {
        Check::Exec(_) => None,
        Check::TcpSocket { host: named, port } => Some(vec!["tcp".to_owned(), host(named), port.to_string()]),
        Check::Grpc { port, service } => {
            Some(vec!["grpc".to_owned(), host(&None), port.to_string(), service.clone()])
        }
        Check::HttpGet { host: named, port, path, headers } => {
            let mut words = vec!["http".to_owned(), host(named), port.to_string(), path.clone()];
            words.extend(headers.iter().flat_map(|(name, value)| [name.clone(), value.clone()]));
            Some(words)
        }
    }
}

/// Runs the role.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Option<Vec<String>> = arguments.map(|argument| argument.into_string().ok()).collect();
    let found = match words.as_deref() {
        Some([kind, host, port]) if kind == "tcp" => connect(host, port).map(drop),
        Some([kind, host, port, path, headers @ ..]) if kind == "http" => get(host, port, path, headers),
        Some([kind, host, port, service]) if kind == "grpc" => {
            connect(host, port).and_then(|stream| super::grpc::check(stream, host, port, service))
        }
        _ => Err("vswitch: the arguments of the check are incomplete".to_owned()),
    };
    match found {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Standard error may be gone, and then there is nobody to tell.
            let _ = writeln!(io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn connect(host: &str, port: &str) -> Result<TcpStream, String> {
    let number: u16 = port.parse().map_err(|_| format!("{port} is no port"))?;
    TcpStream::connect((host, number)).map_err(|error| {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        format!("cannot connect to {host}:{port}: {error}")
    })
}

fn get(host: &str, port: &str, path: &str, headers: &[String]) -> Result<(), String> {
    let mut stream = connect(host, port)?;
    let failed = |error: io::Error| format!("GET {path} of port {port}: {error}");
    stream.write_all(request(host, port, path, headers).as_bytes()).map_err(failed)?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(MAX_STATUS_LINE);
    reader.read_until(b'\n', &mut line).map_err(failed)?;
    match status_of(&line) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("GET {path} of port {port} was answered with status {status}")),
        None => Err(format!("port {port} did not answer GET {path} in HTTP")),
    }
}

fn request(host: &str, port: &str, path: &str, headers: &[String]) -> String {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = format!("GET {slash}{path} HTTP/1.1\r\n");
    let pairs: Vec<(&str, &str)> = headers
        .chunks_exact(2)
        .filter_map(|pair| Some((pair.first()?.as_str(), pair.last()?.as_str())))
        .collect();
    let given = |name: &str| pairs.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let own = [
        ("Host", format!("{host}:{port}")),
        ("User-Agent", "vswitch-probe".to_owned()),
        ("Accept", "*/*".to_owned()),
    ];
    for (name, value) in own.iter().filter(|(name, _)| !given(name)) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    for (name, value) in pairs.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Connection")) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");
    request
}

/// The status code of an HTTP/1 status line (RFC 9112 section 4).
fn status_of(line: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let version = words.next()?;
    let code = words.next()?;
    (version.starts_with("HTTP/1.") && code.len() == 3).then(|| code.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn only_status_lines_are_understood() {
        assert_eq!(status_of(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status_of(b"HTTP/1.0 503\r\n"), Some(503));
        for bad in
            [&b""[..], b"\r\n", b"HTTP/1.1\r\n", b"SSH-2.0-x 200\r\n", b"HTTP/1.1 2000\r\n", b"\xff 200"]
        {
            assert_eq!(status_of(bad), None);
        }
    }

    #[test]
    fn a_request_names_the_host_unless_it_is_told_to_name_another() {
        let plain = request("fd00::1", "80", "x", &[]);
        assert!(plain.starts_with("GET /x HTTP/1.1\r\nHost: [fd00::1]:80\r\n"), "{plain}");
        let headers = ["host", "a.example", "X-A", "b"].map(str::to_owned);
        let told = request("10.0.0.1", "80", "/", &headers);
        assert!(!told.contains("Host: 10") && told.contains("host: a.example\r\nX-A: b\r\n"), "{told}");
        assert!(told.ends_with("Connection: close\r\n\r\n"));
    }

    #[test]
    fn a_server_is_well_if_it_answers_and_only_then() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 302 Found\r\n\r\n", "HTTP/1.1 500 x\r\n\r\n", "hello\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(get("127.0.0.1", &port, "/", &[]), Ok(()));
        assert!(get("127.0.0.1", &port, "/", &[]).unwrap_err().contains("status 500"));
        assert!(get("127.0.0.1", &port, "/", &[]).unwrap_err().contains("did not answer"));
        server.join().unwrap();
        assert!(connect("127.0.0.1", &port).unwrap_err().contains("cannot connect"));
    }
}

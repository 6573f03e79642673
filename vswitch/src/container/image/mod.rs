//! Images: there is no registry here, so an image is a name for a command of the host or for a program of this
//! executable.

mod echo;
mod ending;
mod http;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

use super::spec::Program;

/// The role in which this executable is a built-in image.
pub(crate) const ROLE: &str = "__image";
/// What the names of built-in images begin with.
const PREFIX: &str = "vswitch/";
/// Name and default port of each built-in image.
const BUILT_IN: [(&str, u16); 2] = [("echo", 7777), ("http", 80)];

/// What a container with this `image`, `command` and `args` runs. As in Kubernetes `command` replaces what the image
/// runs, and `args` follows. `images` says what stands for an image: a command of the host, or a built-in image with
/// arguments. An image is found with its tag and then without.
pub fn resolve(
    image: &str,
    command: &[String],
    args: &[String],
    images: &BTreeMap<String, Vec<String>>,
) -> Program {
    if !command.is_empty() {
        return Program::Command([command, args].concat());
    }
    let names = [image, without_tag(image)];
    let mapped = names.iter().find_map(|name| images.get(*name));
    let own = [names[1].to_owned()];
    let (program, first) = match mapped.map_or(&own[..], Vec::as_slice) {
        [] => return Program::None(format!("image {image:?} is mapped to an empty command")),
        [program, first @ ..] => (program, first),
    };
    if let Some(name) = built_in(program) {
        return Program::Builtin([&[name.to_owned()], first, args].concat());
    }
    match mapped {
        Some(mapped) => Program::Command([mapped, args].concat()),
        None => Program::None(format!(
            "image {image:?} cannot be run: there is no registry here; give the container a `command`, map the image to \
             one under `images` of the Cluster, or use vswitch/http or vswitch/echo"
        )),
    }
}

/// The image without `:tag` and `@digest`; a colon in front of a slash belongs to a registry's port.
fn without_tag(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

fn built_in(name: &str) -> Option<&'static str> {
    let name = without_tag(name).strip_prefix(PREFIX)?;
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(known, _)| *known)
}

/// Replaces `$(NAME)` by the variable of that name where there is one; `$$(NAME)` is `$(NAME)` itself.
pub(crate) fn expand(argv: &[String], env: &[(String, String)]) -> Vec<String> {
    argv.iter().map(|argument| expand_one(argument, env)).collect()
}

fn expand_one(argument: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        let value = reference.and_then(|(name, after)| {
            // Of two variables of one name the later counts, as in the environment itself.
            env.iter().rfind(|(known, _)| known == name).map(|(_, value)| (value, after))
        });
        if let Some((value, after)) = value {
            expanded.push_str(value);
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// How the helper starts a built-in image: this executable, even if it was replaced on disk meanwhile.
pub(super) fn builtin_argv(argv: &[String]) -> Vec<String> {
    let mut whole = vec![crate::helper::SELF.to_owned(), ROLE.to_owned()];
    whole.extend_from_slice(argv);
    whole
}

/// Runs the role: `NAME [--port N]`.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Option<Vec<String>> = arguments.map(|argument| argument.into_string().ok()).collect();
    let Some((name, port)) = arguments.as_deref().and_then(parse) else {
        return complain("vswitch: the built-in images are `http` and `echo`, each with `--port N` at most");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let ending = ending::Ending::new();
            let serve = async {
                if name == "http" {
                    http::serve(port, &ending).await
                } else {
                    echo::serve(port, &ending).await
                }
            };
            tokio::select! {
                ended = ending.end() => ended,
                served = serve => served,
            }
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("vswitch/{name}: {error}")),
    }
}

fn parse(arguments: &[String]) -> Option<(&'static str, u16)> {
    let (name, options) = arguments.split_first()?;
    let &(name, mut port) = BUILT_IN.iter().find(|(known, _)| known == name)?;
    match options {
        [] => {}
        [option, number] if option == "--port" => port = number.parse().ok().filter(|port| *port != 0)?,
        [option] => port = option.strip_prefix("--port=")?.parse().ok().filter(|port| *port != 0)?,
        _ => return None,
    }
    Some((name, port))
}

fn complain(what: &str) -> ExitCode {
    // Standard error may be gone, and then there is nobody to tell.
    let _ = writeln!(io::stderr(), "{what}");
    ExitCode::FAILURE
}

/// A socket bound to `port` for IPv4 and IPv6, or for IPv4 only where the machine has no IPv6. Non-blocking.
fn bind(kind: SockType, port: u16) -> io::Result<OwnedFd> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let bound = match bind_to(kind, v6) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
            bind_to(kind, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        bound => bound,
    };
    bound.map_err(|errno| {
        let error = io::Error::from(errno);
        let why = if errno == Errno::EADDRINUSE {
            "address already in use (another container of this pod has it)".to_owned()
        } else {
            error.to_string()
        };
        io::Error::new(error.kind(), format!("cannot listen on port {port}: {why}"))
    })
}

pub(crate) fn bind_to(kind: SockType, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, kind, flags, None)?;
    if address.is_ipv6() {
        socket::setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    if kind == SockType::Stream {
        // Connections of a former run may still linger; for UDP this would let two have one port.
        socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    if kind == SockType::Stream {
        socket::listen(&socket, socket::Backlog::MAXCONN)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn map() -> BTreeMap<String, Vec<String>> {
        [
            ("example/web", "vswitch/http --port 8080"),
            ("example/web:2", "python3 -m http.server"),
            ("localhost:5000/x", "sleep 1"),
            ("empty", ""),
        ]
        .map(|(name, command)| (name.to_owned(), words(command)))
        .into()
    }

    #[test]
    fn command_replaces_the_image_and_args_follow() {
        let command = |text| Program::Command(words(text));
        let builtin = |text| Program::Builtin(words(text));
        let cases = [
            ("nginx", "sleep", "5", command("sleep 5")),
            ("vswitch/http", "sleep", "", command("sleep")),
            ("vswitch/http", "", "", builtin("http")),
            ("vswitch/http:1.2", "", "--port 8", builtin("http --port 8")),
            ("vswitch/echo@sha256:0", "", "", builtin("echo")),
            ("example/web", "", "", builtin("http --port 8080")),
            ("example/web:1", "", "--x", builtin("http --port 8080 --x")),
            ("example/web:2", "", "80", command("python3 -m http.server 80")),
            ("localhost:5000/x:latest", "", "", command("sleep 1")),
            ("localhost:5000/x", "", "", command("sleep 1")),
        ];
        for (image, command, args, expected) in cases {
            assert_eq!(resolve(image, &words(command), &words(args), &map()), expected, "{image}");
        }
        for image in ["nginx", "vswitch/other", "http", "empty", ""] {
            assert!(matches!(resolve(image, &[], &words("x"), &map()), Program::None(_)), "{image}");
        }
    }

    #[test]
    fn variables_are_replaced_as_in_kubernetes() {
        let env = [("A", "1"), ("B", "$(A)"), ("A", "2")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let cases = [
            ("x$(A)y", "x2y"),
            ("$(B)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$2"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$($(A))", "$(2)"),
            ("ä$(A)ö", "ä2ö"),
        ];
        for (argument, expected) in cases {
            assert_eq!(expand_one(argument, &env), expected, "{argument}");
        }
    }

    #[test]
    fn the_role_understands_its_arguments() {
        assert_eq!(parse(&words("http")), Some(("http", 80)));
        assert_eq!(parse(&words("echo")), Some(("echo", 7777)));
        assert_eq!(parse(&words("http --port 8080")), Some(("http", 8080)));
        assert_eq!(parse(&words("http --port=8080")), Some(("http", 8080)));
        for bad in
            ["", "x", "http --port", "http --port 0", "http --port 65536", "http 80", "http --port 1 2"]
        {
            assert_eq!(parse(&words(bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_told_in_one_line() {
        let first =
            std::net::TcpListener::bind("[::]:0").or_else(|_| std::net::TcpListener::bind("0.0.0.0:0"));
        let first = first.unwrap();
        let port = first.local_addr().unwrap().port();
        let error = bind(SockType::Stream, port).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on port {port}: address already in use (another container of this pod has it)"
            )
        );
    }
}

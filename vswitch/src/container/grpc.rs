//! The gRPC health protocol (`grpc.health.v1.Health/Check`), as much of it as a probe needs.
//!
//! A gRPC call is one POST over HTTP/2: a message with five octets in front (RFC: gRPC over HTTP2), and its status in the
//! trailers. The two messages of the health protocol are small enough to be written and read here.

use std::net::TcpStream;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};

/// The longest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;
/// The names of its values.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Asks over a connection that is made; the caller limits the time.
pub(super) fn check(stream: TcpStream, host: &str, port: &str, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("port {port} did not answer in gRPC: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    stream.set_nonblocking(true).map_err(|error| failed(&error))?;
    let (status, answer) =
        runtime.block_on(call(stream, host, port, service)).map_err(|error| failed(&error))?;
    if status != "0" {
        return Err(format!("port {port} answered the health check with gRPC status {status}"));
    }
    match serving_status(&answer) {
        Some(SERVING) => Ok(()),
        Some(other) => {
            let name = usize::try_from(other).ok().and_then(|other| STATUSES.get(other));
            Err(format!("service {service:?} at port {port} is {}", name.unwrap_or(&"UNKNOWN")))
        }
        None => Err(failed(&"the message is malformed")),
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One call: its status and its message.
async fn call(stream: TcpStream, host: &str, port: &str, service: &str) -> Result<(String, Bytes), Failure> {
    let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    // It ends with the runtime.
    drop(tokio::spawn(connection));
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "vswitch-probe")
        .body(Full::new(Bytes::from(question(service))))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?;
    let status = |headers: &HeaderMap| Some(headers.get("grpc-status")?.to_str().ok()?.to_owned());
    let told = body.trailers().and_then(status).or_else(|| status(&head.headers));
    Ok((told.ok_or_else(|| format!("HTTP status {} and no gRPC status", head.status))?, body.to_bytes()))
}

/// `HealthCheckRequest { service }` with its prefix: not compressed, and how long it is.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length.to_le_bytes()[0] | 0x80);
            length >>= 7;
        }
        message.push(length.to_le_bytes()[0]);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// Field 1 of `HealthCheckResponse`; 0 if it is not there, as in every message of Protocol Buffers.
fn serving_status(answer: &[u8]) -> Option<u64> {
    let (prefix, message) = answer.split_at_checked(5)?;
    let (compressed, length) = prefix.split_first()?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    if *compressed != 0 || length != message.len() {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => {
                let value = varint(&mut rest)?;
                status = if key >> 3 == 1 { value } else { status };
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (octet, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_are_those_that_protoc_makes() {
        // printf 'service: "a.B"' | protoc --encode=grpc.health.v1.HealthCheckRequest health.proto | xxd
        assert_eq!(question("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        assert_eq!(question(""), [0; 5]);
        let long = question(&"x".repeat(300));
        assert_eq!((&long[..8], long.len()), (&[0, 0, 0, 1, 47, 0x0a, 0xac, 2][..], 308));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(SERVING));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        // Fields that are not known yet.
        assert_eq!(serving_status(&[0, 0, 0, 0, 6, 0x12, 1, b'x', 8, 1, 0x18][..]), None);
        assert_eq!(serving_status(&[0, 0, 0, 0, 7, 0x12, 1, b'x', 8, 1, 0x18, 9][..]), Some(SERVING));
    }

    /// A server of HTTP/2 that answers every call in the same way; returns what it was asked.
    fn answered(
        status: &'static str,
        message: &'static [u8],
        trailers_only: bool,
    ) -> (Result<(), String>, String) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let (asked, heard) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let asked = asked.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        asked
                            .send(format!("{} {} {:?} {body:?}", head.method, head.uri, head.headers))
                            .unwrap();
                        let status = hyper::header::HeaderValue::from_static(status);
                        let mut response =
                            hyper::Response::new(Full::new(Bytes::from_static(message)).with_trailers({
                                let status = status.clone();
                                async move {
                                    Some(Ok(HeaderMap::from_iter([("grpc-status".parse().unwrap(), status)])))
                                }
                            }));
                        if trailers_only {
                            response.headers_mut().insert("grpc-status", status);
                        }
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // The client leaves without a word.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        });
        let stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
        let found = check(stream, "127.0.0.1", &port, "shop");
        server.join().unwrap();
        (found, heard.try_recv().unwrap_or_default())
    }

    #[test]
    fn only_a_service_that_serves_is_well() {
        let (found, asked) = answered("0", &[0, 0, 0, 0, 2, 8, 1], false);
        assert_eq!(found, Ok(()));
        assert!(
            asked.starts_with("POST http://127.0.0.1:") && asked.contains("/grpc.health.v1.Health/Check"),
            "{asked}"
        );
        assert!(asked.contains("\"application/grpc\"") && asked.contains("\"te\": \"trailers\""), "{asked}");
        let (found, _) = answered("0", &[0, 0, 0, 0, 2, 8, 2], false);
        assert!(found.unwrap_err().ends_with("is NOT_SERVING"));
        let (found, _) = answered("12", &[], true);
        assert!(found.unwrap_err().ends_with("gRPC status 12"));
        let (found, _) = answered("0", &[1, 2, 3], false);
        assert!(found.unwrap_err().contains("malformed"));
    }

    #[test]
    fn a_server_of_http_1_does_not_answer_in_grpc() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut far, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        drop(far);
        let found = check(stream, "127.0.0.1", &port.to_string(), "");
        assert!(found.unwrap_err().contains("did not answer in gRPC"));
    }

    #[test]
    fn hostile_answers_are_refused() {
        for bad in [
            &[][..],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 3, 8, 1],
            &[0, 255, 255, 255, 255, 8],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 3, 0x12, 0xff, 1],
            &[0, 0, 0, 0, 1, 0x0b],
            &[0, 0, 0, 0, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert_eq!(serving_status(bad), None, "{bad:?}");
        }
    }
}

//! Asking a running `vswitch`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::api::ErrorBody;

/// How often, and how far apart, it is tried to connect while the socket has too many waiting.
const ATTEMPTS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody serves.
    #[error(
        "no vswitch runs here (nobody answers at {0}); start one with `vswitch up`, or name its --state-dir"
    )]
    NotRunning(PathBuf),
    /// The socket may not be used.
    #[error("{path} belongs to another user ({source}); the control socket is its owner's alone")]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server's own words.
    #[error("{0}")]
    Refused(String),
    /// The connection broke.
    #[error("the connection to the running vswitch failed: {0}")]
    Connection(String),
    /// What was received could not be written.
    #[error("cannot write: {0}")]
    Output(io::Error),
}

/// Asks over one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Connection(error.to_string())
}

fn executor() -> Result<tokio::runtime::Runtime, ClientError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)
}

impl Client {
    /// A client of the server at `socket`; connects anew for every question.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket it asks over.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for a resource.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let mut answer = Vec::new();
        self.ask(Method::GET, path, Bytes::new(), &mut answer)?;
        serde_json::from_slice(&answer).map_err(broken)
    }

    /// Sends something and returns the answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let mut answer = Vec::new();
        let body = serde_json::to_vec(body).map_err(broken)?;
        self.ask(Method::POST, path, body.into(), &mut answer)?;
        serde_json::from_slice(&answer).map_err(broken)
    }

    /// Writes a resource to `out` as it arrives, to its end or until the process is interrupted (Ctrl-C).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn stream(&self, path: &str, out: &mut impl Write) -> Result<(), ClientError> {
        executor()?.block_on(async {
            tokio::select! {
                ended = self.ask_async(Method::GET, path, Bytes::new(), out) => ended,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        })
    }

    fn ask(&self, method: Method, path: &str, body: Bytes, out: &mut impl Write) -> Result<(), ClientError> {
        executor()?.block_on(self.ask_async(method, path, body, out))
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        for _ in 0..ATTEMPTS {
            match UnixStream::connect(&self.socket).await {
                Ok(stream) => return Ok(stream),
                // More clients wait than the socket lets wait (EAGAIN, connect(2)).
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(ClientError::Forbidden { path: self.socket.clone(), source });
                }
                Err(_) => return Err(ClientError::NotRunning(self.socket.clone())),
            }
        }
        Err(ClientError::Connection(format!("nobody accepts connections at {}", self.socket.display())))
    }

    async fn ask_async(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        out: &mut impl Write,
    ) -> Result<(), ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "vswitch")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(broken)?;
        let answer = async {
            let mut response = sender.send_request(request).await.map_err(broken)?;
            if response.status() != StatusCode::OK {
                let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
                let error = serde_json::from_slice::<ErrorBody>(&body).map(|b| b.error);
                return Err(ClientError::Refused(
                    error.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned()),
                ));
            }
            while let Some(frame) = response.frame().await {
                if let Ok(data) = frame.map_err(broken)?.into_data() {
                    out.write_all(&data).and_then(|()| out.flush()).map_err(ClientError::Output)?;
                }
            }
            Ok(())
        };
        let mut answer = std::pin::pin!(answer);
        let mut connection = std::pin::pin!(connection);
        let mut connected = true;
        loop {
            tokio::select! {
                result = &mut answer => return result,
                _ = &mut connection, if connected => connected = false,
            }
        }
    }
}

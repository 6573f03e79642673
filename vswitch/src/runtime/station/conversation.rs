//! One TCP conversation of the probe protocol, either side, as a list of things still to do.

use std::collections::VecDeque;
use std::time::Duration;

use netstack::host::{Host, TcpError, TcpHandle};
use netstack::seed::{Rng, Seed};
use sha2::{Digest, Sha256};

use crate::probe;

/// Octets moved at a time.
const CHUNK: usize = 16 * 1024;

/// One thing still to do.
enum Op {
    /// Send these octets.
    Put(Vec<u8>),
    /// Send octets of a sequence, hashing them.
    PutBody { left: u64, rng: Rng, hash: Sha256, pending: Vec<u8> },
    /// Send the hash of what was received last.
    PutDigest,
    /// Receive the length and plan the rest (server).
    GetHeader(Vec<u8>),
    /// Receive octets, hashing them.
    GetBody { left: u64, hash: Sha256 },
    /// Receive a hash and compare it with the last one of ours.
    CheckDigest(Vec<u8>),
}

/// A conversation in progress.
pub(super) struct Conversation {
    todo: VecDeque<Op>,
    digest: [u8; 32],
}

fn put_body(len: u64, seed: u64) -> Op {
    Op::PutBody {
        left: len,
        rng: Seed::from_u64(seed).rng("payload"),
        hash: Sha256::new(),
        pending: Vec::new(),
    }
}

impl Conversation {
    pub(super) fn server() -> Self {
        Self { todo: VecDeque::from([Op::GetHeader(Vec::new())]), digest: [0; 32] }
    }

    pub(super) fn client(bytes: u64) -> Self {
        let todo = VecDeque::from([
            Op::Put(bytes.to_be_bytes().to_vec()),
            put_body(bytes, bytes),
            Op::CheckDigest(Vec::new()),
            Op::GetBody { left: bytes, hash: Sha256::new() },
            Op::CheckDigest(Vec::new()),
        ]);
        Self { todo, digest: [0; 32] }
    }

    /// Does what is possible; says whether all is done.
    pub(super) fn advance(
        &mut self,
        host: &mut Host,
        now: Duration,
        handle: TcpHandle,
    ) -> Result<bool, String> {
        while let Some(op) = self.todo.front_mut() {
            let step = match op {
                Op::Put(bytes) => put(host, now, handle, bytes),
                Op::PutDigest => {
                    *op = Op::Put(self.digest.to_vec());
                    continue;
                }
                Op::PutBody { left, rng, hash, pending } => {
                    put_chunks(host, now, handle, left, rng, hash, pending)
                }
                Op::GetHeader(bytes) => get(host, now, handle, bytes, 8),
                Op::GetBody { left, hash } => get_chunks(host, now, handle, left, hash),
                Op::CheckDigest(bytes) => get(host, now, handle, bytes, 32),
            };
            match step {
                Ok(()) => self.finish_front()?,
                Err(TcpError::WouldBlock) => return Ok(false),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(true)
    }

    fn finish_front(&mut self) -> Result<(), String> {
        match self.todo.pop_front() {
            Some(Op::GetHeader(bytes)) => {
                let len = u64::from_be_bytes(bytes.try_into().unwrap_or_default());
                self.todo.extend([
                    Op::GetBody { left: len, hash: Sha256::new() },
                    Op::PutDigest,
                    put_body(len, len ^ 0x5eed),
                    Op::PutDigest,
                ]);
            }
            Some(Op::PutBody { hash, .. } | Op::GetBody { hash, .. }) => self.digest = hash.finalize().into(),
            Some(Op::CheckDigest(theirs)) if theirs != self.digest => {
                return Err("the SHA-256 differs at the two ends".to_owned());
            }
            Some(Op::CheckDigest(_) | Op::Put(_) | Op::PutDigest) | None => {}
        }
        Ok(())
    }
}

fn put(host: &mut Host, now: Duration, handle: TcpHandle, bytes: &mut Vec<u8>) -> Result<(), TcpError> {
    while !bytes.is_empty() {
        let taken = host.tcp_send(now, handle, bytes)?;
        bytes.drain(..taken);
    }
    Ok(())
}

fn put_chunks(
    host: &mut Host,
    now: Duration,
    handle: TcpHandle,
    left: &mut u64,
    rng: &mut Rng,
    hash: &mut Sha256,
    pending: &mut Vec<u8>,
) -> Result<(), TcpError> {
    loop {
        put(host, now, handle, pending)?;
        if *left == 0 {
            return Ok(());
        }
        let len = usize::try_from(*left).unwrap_or(CHUNK).min(CHUNK);
        pending.resize(len, 0);
        probe::fill(rng, pending);
        hash.update(&pending[..]);
        *left -= len as u64;
    }
}

fn get(
    host: &mut Host,
    now: Duration,
    handle: TcpHandle,
    bytes: &mut Vec<u8>,
    want: usize,
) -> Result<(), TcpError> {
    let mut chunk = [0; 32];
    while bytes.len() < want {
        let most = (want - bytes.len()).min(chunk.len());
        match host.tcp_recv(now, handle, &mut chunk[..most])? {
            0 => return Err(TcpError::Closed),
            got => bytes.extend_from_slice(&chunk[..got]),
        }
    }
    Ok(())
}

fn get_chunks(
    host: &mut Host,
    now: Duration,
    handle: TcpHandle,
    left: &mut u64,
    hash: &mut Sha256,
) -> Result<(), TcpError> {
    let mut chunk = [0; CHUNK];
    while *left > 0 {
        let most = usize::try_from(*left).unwrap_or(CHUNK).min(CHUNK);
        match host.tcp_recv(now, handle, &mut chunk[..most])? {
            0 => return Err(TcpError::Closed),
            got => {
                hash.update(&chunk[..got]);
                *left -= got as u64;
            }
        }
    }
    Ok(())
}

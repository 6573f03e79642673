//! The edge against a host with a TCP that we did not write, on links that lose, copy and reorder, towards an outside that
//! does what it is told to. On a clock of their own: a run follows from a number.

mod connections;
mod doors;
mod lab;
mod messages;
mod segments;
mod sockets;
mod world;

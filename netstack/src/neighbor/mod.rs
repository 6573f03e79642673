//! Neighbours: ARP and neighbour discovery as one machine.

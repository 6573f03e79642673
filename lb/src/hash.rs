//! A keyed hash of a flow that stays the same across releases and platforms.

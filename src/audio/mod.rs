//! What the first bytes of a recording say about the rest. Pure: bytes in, facts out.

pub mod wav;

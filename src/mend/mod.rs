//! Damage: looking for it, saving what it left, and mending what can be mended without a guess.

mod salvage;

pub use salvage::{SalvageError, Salvaged, salvage};

//! What the targets share with the ordinary tests, which need more than is built here.

#[path = "../../common/bare.rs"]
pub mod bare;
#[path = "../../common/rng.rs"]
pub mod rng;
#[path = "../../common/scan.rs"]
pub mod scan;

//! Making derivations real: checkouts for sandboxes, and the work of each builder.

mod checkout;

pub use checkout::{CheckoutError, Checkouts, CommandLimits};

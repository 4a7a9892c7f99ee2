pub(crate) mod baseline;
pub(crate) mod request;
pub(crate) mod steps;
mod untrusted;

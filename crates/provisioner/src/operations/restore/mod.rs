pub(crate) mod request;
pub(crate) mod steps;

pub(crate) mod in_place;
pub(crate) mod request;
pub(crate) mod steps;

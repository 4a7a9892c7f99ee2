pub(crate) mod steps;

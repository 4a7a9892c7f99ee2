//! Exports read back with independent readers (the crates zip and csv) and compared with the database row by
//! row.

#[cfg(test)]
mod reading;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod trouble;
#[cfg(test)]
mod values;

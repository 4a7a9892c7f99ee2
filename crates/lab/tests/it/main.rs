//! The laboratory on a real PostgreSQL, as its own role: the rules that code keeps, and those that the
//! database keeps against any code.

#[cfg(test)]
mod amending;
#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod collecting;
#[cfg(test)]
mod definers;
#[cfg(test)]
mod evaluating;
#[cfg(test)]
mod feed;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod guards;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod judging;
#[cfg(test)]
mod lifted;
#[cfg(test)]
mod limits_kept;
#[cfg(test)]
mod notices;
#[cfg(test)]
mod patients;
#[cfg(test)]
mod people;
#[cfg(test)]
mod races;
#[cfg(test)]
mod reevaluating;
#[cfg(test)]
mod refuted;
#[cfg(test)]
mod rejecting;
#[cfg(test)]
mod server_log;
#[cfg(test)]
mod signature_guards;
#[cfg(test)]
mod support;
#[cfg(test)]
mod unmarked;
#[cfg(test)]
mod unmarked_fresh;
#[cfg(test)]
mod unmarked_sql;
#[cfg(test)]
mod upgrading;
#[cfg(test)]
mod worklists;

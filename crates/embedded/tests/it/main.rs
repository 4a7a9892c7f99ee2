//! The private cluster, tried with real servers and real `kill -9`.

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod halt;
#[cfg(test)]
mod helper;
#[cfg(test)]
mod life;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod with_postgres;

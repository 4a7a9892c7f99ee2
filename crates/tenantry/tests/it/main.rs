//! The library as a program outside of the workspace uses it: by its facade alone.

#[cfg(test)]
mod example;
#[cfg(test)]
mod outside;

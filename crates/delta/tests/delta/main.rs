//! What the crate promises, seen from outside.

#[cfg(test)]
mod basis;
#[cfg(test)]
mod documented;
#[cfg(test)]
mod exact;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod inputs;
#[cfg(test)]
mod rdiff;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod roundtrip;
#[cfg(test)]
mod threads;

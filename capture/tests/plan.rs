//! The plan on paper: its figures by hand, and its seconds by a simulation.

mod closed_form;
mod command;
mod line;

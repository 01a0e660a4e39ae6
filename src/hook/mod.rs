//! What may be seen and changed: sites, interventions, plans, and the tap that applies them.

pub mod site;

//! Mapping and filtering as coturn's RFC 5780 client finds them.

use testkit::{Lab, discovery};

use crate::{Cell, Finding};

pub(crate) fn measure(lab: &mut Lab) -> Cell {
    let said = discovery::after_a_collision(lab);
    let found: Vec<&str> = said
        .lines()
        .filter_map(|line| Some(line.split_once("NAT with ")?.1.trim_end_matches(['!', ' '])))
        .collect();
    if found.is_empty() {
        return Err("turnutils_natdiscovery found nothing".to_owned());
    }
    Ok(Finding { words: found.join("; "), right: found.contains(&"Endpoint Independent Mapping") })
}

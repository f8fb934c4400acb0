//! Flows that change owner between the kernel's NAT and natd.

use nat_core::decision::KernelFlow;
use nat_core::nat::Handover;
use nat_core::time::Timestamp;

use super::Shared;
use crate::check;
use crate::engine::Engine;
use crate::io::conntrack::{Conntrack, ConntrackError};
use crate::io::rules::survey;
use crate::rules::Surroundings;

/// Takes over what conntrack knows: flows of a natd that was killed, and flows that a kernel NAT translates.
/// The latter's entries stay until the rules stand: an inbound packet without entry and without rules would
/// reach the router itself, whose refusal ends the connection. Answers how many flows go on.
pub(super) fn adopt(
    conntrack: &mut Conntrack,
    engine: &mut Engine,
    now: Timestamp,
) -> Result<u64, ConntrackError> {
    let mut adopted = 0;
    conntrack.for_each(|flow| {
        let handover = engine.adopt(now, &flow);
        adopted += u64::from(matches!(handover, Handover::Adopted | Handover::AdoptedFromKernel));
    })?;
    Ok(adopted)
}

/// Deletes the entries of flows of ours that the kernel would go on to translate. Packets wait for the NAT, so it
/// is asked only when conntrack has told everything.
pub(super) fn end_kernel_nat(conntrack: &mut Conntrack, shared: &Shared) -> Result<(), ConntrackError> {
    let mut translated = select(conntrack, |flow| flow.snat)?;
    translated.retain(|flow| shared.engine().is_ours(flow));
    for flow in &translated {
        conntrack.delete(&flow.original)?;
        shared.engine().kernel_forgot(&flow.original);
    }
    Ok(())
}

/// Deletes the entries of flows that we translated: they would leave untranslated, whoever comes after us.
pub(super) fn end_ours(conntrack: &mut Conntrack, shared: &Shared) -> Result<(), ConntrackError> {
    let mut ours = select(conntrack, |flow| !flow.snat)?;
    ours.retain(|flow| shared.engine().is_ours(flow));
    for flow in ours {
        conntrack.delete(&flow.original)?;
    }
    Ok(())
}

/// The flows in conntrack that are `wanted`.
fn select(
    conntrack: &mut Conntrack,
    wanted: impl Fn(&KernelFlow) -> bool,
) -> Result<Vec<KernelFlow>, ConntrackError> {
    let mut selected = Vec::new();
    conntrack.for_each(|flow| {
        if wanted(&flow) {
            selected.push(flow);
        }
    })?;
    Ok(selected)
}

/// Does another NAT translate what leaves the WAN?
pub(super) fn another_nat(surroundings: &Surroundings) -> bool {
    let (nft, legacy) = (survey::nft_ruleset(), survey::iptables_legacy());
    check::another_nat_serves(
        &surroundings.wan,
        &surroundings.lan_prefixes,
        nft.as_deref(),
        legacy.as_deref(),
    )
}

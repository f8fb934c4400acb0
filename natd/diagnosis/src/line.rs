//! What concerns the line and the router as a whole, and what several pairs show together.

use crate::finding::Findings;
use crate::household::Context;

/// What is wrong with the line; here device and server of a finding are to be filled in where it has them.
pub fn findings(context: &Context<'_>, findings: &mut Findings) {
    let _ = (context, findings);
}

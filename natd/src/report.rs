//! What natd says of itself: counters, status, flow rows; JSON, text and Prometheus forms.

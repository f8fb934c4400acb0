//! `natd check`: is the configuration valid, the kernel able, the surroundings friendly?

import "./continuation.mjs"; // the same for rotated queries and keys, and grouped heads

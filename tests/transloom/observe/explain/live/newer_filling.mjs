import "./filling.mjs"; // the same without pairs, and with norms before the sub-layers

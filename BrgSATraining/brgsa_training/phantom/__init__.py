"""Digital chest CT phantoms: made from a seed, with abnormalities, masks, reports and true labels."""

"""Networks that more than one method is built of."""

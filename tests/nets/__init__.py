"""Networks: the same lines for signals of one, two and three axes."""

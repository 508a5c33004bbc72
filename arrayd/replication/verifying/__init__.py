"""pairverify: the two sides of a group are compared by sums, at one point of its order of writes, while hosts write."""

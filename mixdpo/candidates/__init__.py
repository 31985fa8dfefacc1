"""Candidates: openings of reviews, each completed a few times; shard by shard, whoever writes."""

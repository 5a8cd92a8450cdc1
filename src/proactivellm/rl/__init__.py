"""Reinforcement learning on streams: decisions as actions, rollouts, rewards, policy gradients."""

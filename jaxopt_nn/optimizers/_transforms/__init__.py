"""What changes gradients or updates on their way: clipping, decay, proximal steps, learning rates."""

__all__: list[str] = []

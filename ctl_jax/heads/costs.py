"""FLOPs of dense linear algebra, at 2 per multiply-add; element-wise work is not counted.

Triangular ones: Golub & Van Loan, Matrix Computations, 4th edition, 2013, chapters 3 and 4.
"""


def product(rows: int, inner: int, columns: int) -> int:
    """Of [rows, inner] @ [inner, columns]."""
    return 2 * rows * inner * columns


def gram(rows: int, columns: int) -> int:
    """Of X.T @ X for X [rows, columns]: one triangle, since it is symmetric."""
    return rows * columns * (columns + 1)


def cholesky(size: int) -> int:
    """Of a Cholesky factor [size, size]; and of the inverse of a triangular matrix."""
    return size**3 // 3


def triangular(size: int, columns: int) -> int:
    """Of solving with one triangular matrix [size, size] for so many right sides."""
    return size**2 * columns

"""FLOPs of dense linear algebra, at 2 per multiply-add; element-wise work is not counted.

Triangular and orthogonal ones: Golub & Van Loan, Matrix Computations, 4th edition, 2013, chapters
3 to 5 and 8.
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


def qr(rows: int, columns: int) -> int:
    """Of an orthonormal basis of what so many columns span, at most `rows`."""
    small = min(rows, columns)
    return 4 * max(rows, columns) * small**2


def svd(rows: int, columns: int) -> int:
    """Of singular values and both sides' vectors, [rows, columns] with no more columns."""
    small = min(rows, columns)
    return 6 * max(rows, columns) * small**2 + 20 * small**3

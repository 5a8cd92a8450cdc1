"""Pages of a store, handed out and taken back: the bookkeeping of a paged cache."""

import heapq
from collections.abc import Iterable


class StoreFull(RuntimeError):
    """No page is left, and the store may not grow."""


class PagePool:
    """Which pages are free, of those numbered from 0."""

    def __init__(self, num_pages: int) -> None:
        self._is_free = [True] * num_pages
        self._lowest = list(range(num_pages))  # a heap; pages taken out of turn stay in it
        self._is_listed = [True] * num_pages  # in the heap
        self.num_free = num_pages

    @property
    def num_pages(self) -> int:
        """Pages, free or not."""
        return len(self._is_free)

    def is_free(self, page: int) -> bool:
        """Whether a page can be taken."""
        return self._is_free[page]

    def take(self, after: int | None = None) -> int:
        """Hand out a page, the one after a given page if it is free: runs stay whole."""
        if not self.num_free:
            raise StoreFull(f"all {self.num_pages} pages are in use")
        page = -1 if after is None else after + 1
        if not (0 <= page < self.num_pages and self._is_free[page]):
            page = self._pop()
            while not self._is_free[page]:
                page = self._pop()
        self._is_free[page] = False
        self.num_free -= 1
        return page

    def give(self, pages: Iterable[int]) -> None:
        """Take pages back, each once."""
        for page in pages:
            assert not self._is_free[page]
            self._is_free[page] = True
            self._push(page)
            self.num_free += 1

    def grow(self, extra: int) -> None:
        """Add free pages at the end."""
        for page in range(self.num_pages, self.num_pages + extra):
            self._is_free.append(True)
            self._is_listed.append(False)
            self._push(page)
        self.num_free += extra

    def _push(self, page: int) -> None:
        if not self._is_listed[page]:
            self._is_listed[page] = True
            heapq.heappush(self._lowest, page)

    def _pop(self) -> int:
        page = heapq.heappop(self._lowest)
        self._is_listed[page] = False
        return page

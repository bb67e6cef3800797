package reconcile

import (
	"cmp"

	"github.com/maqet/maqet/manifest"
)

// watched refuses to change an object that a live watch keeps otherwise.
func (a *admission) watched(o *manifest.Object, owner, source string) bool {
	if !a.outside || owner != a.live.Owner {
		return false
	}
	a.refuse(o, ErrWatched, watchWords(a.live),
		"edit "+cmp.Or(source, "its manifest")+", or override it with maqet hold "+o.Key().Name)
	return true
}

// watchedPrune refuses to prune what a live watch keeps and would make again.
func (a *admission) watchedPrune(object, source string) bool {
	if !a.outside || a.owner != a.live.Owner {
		return false
	}
	a.errs = append(a.errs, &Error{
		Object: object, Op: "prune", Err: ErrWatched, Detail: watchWords(a.live) + " and would make it again",
		Hint: "remove it from " + cmp.Or(source, "its manifests") + " instead",
	})
	return true
}
